"""The switches that decide the bits of what is computed: the same on all x86-64 processors with AVX2. No torch."""

PORTABLE = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "COMPATIBLE"}
"""Environment variables that let torch's libraries use only kernels that each of these processors has."""
