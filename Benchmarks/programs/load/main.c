// Puts a server on 127.0.0.1 under load and prints what came of it as one JSON object. It knows nothing of the server
// but its port, so that every server is measured by the same clients.
//
//     load echo   --port P [--connections N] [--bytes K] (--requests M | --seconds T)
//     load accept --port P [--connections N] --requests M
//     load idle   --port P [--connections N]
//
// echo: keeps one request of K bytes outstanding on each of N connections; the server sends back what it is sent.
// accept: M connections, N at a time; the server closes each as soon as it has accepted it.
// idle: opens N connections, sends each one byte and reads it back, and holds them open until its standard input ends.
//
// Options: --server-pid PID to account for that process: its processor time in `echo` and `accept`, its resident memory
// in `idle`. --cpu C to run on that processor.
//
// "started" is printed, on a line of its own, when all connections stand and have been used once; then the measured
// part begins, or in `idle` the holding. The JSON comes at the end, in one line. Exit status 0 only if nothing failed.

#include "CLoad.h"

int main(int count, char **arguments) { return load_main(count, arguments); }
