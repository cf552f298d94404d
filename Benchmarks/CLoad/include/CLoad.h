// The load on a server: what its clients do, in a process of its own, so that a server's processor time is its own.
#pragma once

/// The load generator as a program; see programs/load/main.c for what it takes and prints. Returns its exit status.
int load_main(int count, char **arguments);

/// The environment variable that turns a program with this linked in into the load generator, before its own main. The
/// arguments are those of load_main without the first, separated by single spaces. So that a server under measurement
/// can start its load without knowing where a second program lies.
#define LOAD_VARIABLE "GEVENT_BENCHMARK_LOAD"
