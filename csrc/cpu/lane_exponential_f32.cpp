// Exponentials with one float matrix a lane.
#define LIEROPE_LANE_TYPE float
#include "lane_exponential_body.h"
