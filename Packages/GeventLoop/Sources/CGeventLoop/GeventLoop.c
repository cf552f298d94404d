#include "CGeventLoop.h"
