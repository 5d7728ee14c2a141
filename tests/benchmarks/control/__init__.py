"""What a long and wide run costs its driver: 256 generators and 64 teachers, 100 000 samples, a day of virtual time at speed.

Real: the loop (`Run`), the pools with their supervision, heartbeats, messages and replacements, weighting, the sinks, the
endpoint (scraped over HTTP by a thread), the mailbox with its commands, checkpoints, ledgers and the archive of past samples.
Fakes, named so: the engines, which sleep; their actors, which live in this process, so that Ray's own calls are not in the
figures (`tests.benchmarks.schedule` has those); the trainer; and the clock, which skips whatever time nobody works in.
"""
