// Compiles rotate_circulant and its adjoint.
#include "rotate_circulant.cuh"
