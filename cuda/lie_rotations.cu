// The launchers of lie_rotations and its backward, compiled.
#include "lie_rotations.cuh"
