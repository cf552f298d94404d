#include "CGeventNet.h"
