// The launchers of lie_rotate and its backward, compiled.
#include "lie_rotate.cuh"
