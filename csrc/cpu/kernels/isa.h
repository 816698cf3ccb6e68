// The namespace of the instruction set that a kernel file is being compiled for (GFL_ISA: baseline, avx2 or avx512).
#pragma once

#ifndef GFL_ISA
#define GFL_ISA baseline
#endif
#define GFL_JOIN_(a, b) a##b
#define GFL_JOIN(a, b) GFL_JOIN_(a, b)
