"""What only a GPU can show: tests (`test_*.py`), checks of whole components (`checks/`), and a kit to carry their packages.

Begin with `__main__.py` (`python -m tests.gpu`), which runs every check and writes one table. `kit.py` collects packages for a
GPU machine without a network, and `unpack.py` makes a folder for PYTHONPATH of them there.
"""
