"""What this project relies on in vLLM, DeepSpeed, Ray, torch, transformers and peft beyond their documented interfaces.

Every test names the functions of ours that rely on it and what breaks without it (``reliance.relied_on``), so that a new
version of a package fails by name. The tests start no vLLM engine and need no GPU. Where something cannot be exercised without
one, its source is read instead; the test's docstring then says "Read".
"""
