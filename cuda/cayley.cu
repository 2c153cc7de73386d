// Compiles cayley, its adjoint and cayley_rotate.
#include "cayley.cuh"
#include "cayley_rotate.cuh"
