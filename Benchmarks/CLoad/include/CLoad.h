// The load on a server: its clients, in a separate process, so that the server's processor time excludes them.
#pragma once

/// The load generator as a program. programs/load/main.c documents its arguments and output. Returns its exit status.
int load_main(int count, char **arguments);

/// The environment variable that turns a program which links this into the load generator, before its main runs. It
/// contains the arguments of load_main without the first, separated by single spaces. With it, a server under
/// measurement can start its load without the path of a second program.
#define LOAD_VARIABLE "GEVENT_BENCHMARK_LOAD"
