"""What the benchmarks' programs are made of; a file each."""
