#include "CGevent.h"
