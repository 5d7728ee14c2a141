"""How a program and its tests, in an interpreter each, use each other's objects.

Begin with ``peer.py``, one end of the socket between them; ``program_end`` and ``tests_end`` are its two kinds. What crosses is
in ``wire`` (data; ``values`` and ``frames`` have what libraries define), ``containers`` (data that both may change),
``references`` (all else) and ``names`` (what both have anyway). What is made of it is in ``remote`` (objects and functions),
``remote_types`` (classes), ``errors`` (exceptions) and ``flows`` (generators and coroutines), from what ``descriptions`` says.

What tests let a program do is in ``guard``, and what they believe of its objects in ``belief``. ``results`` is for functions
whose results are compared outside of any box.

All of it runs inside of the boxes, which see only the standard library until their programs start.
"""
