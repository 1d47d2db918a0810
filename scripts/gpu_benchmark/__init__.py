"""What `scripts/gpu_bench.py` runs, a process a job: each module is one part, a function that yields what it has found so far.

On a CPU every part runs at toy size; what only CUDA can count is then None.
"""
