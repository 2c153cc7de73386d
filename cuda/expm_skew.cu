// The launchers of expm_skew and its backward, compiled.
#include "expm_skew.cuh"
