#include "CGeventEpoll.h"
