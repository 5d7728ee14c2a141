"""The exact loss, the torch teacher and the trainer's pass on one GPU, at Qwen3-1.7B's shapes with random weights.

Each time is a median over the matmul floor: the seconds of exactly the matrix products that the work needs, whole and in
bfloat16, measured in the same process. Needs torch and transformers; liger-kernel is compared where it is installed.
`--device cpu --tiny` goes through all of it in seconds, and says nothing about time.
"""
