// Puts a server on 127.0.0.1 under load and prints the result as one JSON object. It uses only the server's port, so
// that every server is measured with the same clients.
//
//     load echo   --port P [--connections N] [--bytes K] (--requests M | --seconds T)
//     load accept --port P [--connections N] --requests M
//     load idle   --port P [--connections N]
//
// echo: keeps one request of K bytes in flight on each of N connections; the server must echo it.
// accept: M connections, N at a time; the server closes each as soon as it has accepted it.
// idle: opens N connections, sends each one byte and reads it back, and holds them open until its standard input ends.
//
// Options: --server-pid PID to measure that process: its processor time in `echo` and `accept`, its resident memory in
// `idle`. --cpu C to run on that processor.
//
// It prints "started" on a separate line when all connections are open and have been used once. Then the measured part
// starts, or in `idle` the holding. At the end it prints the JSON in one line. The exit status is 0 only if nothing
// failed.

#include "CLoad.h"

int main(int count, char **arguments) { return load_main(count, arguments); }
