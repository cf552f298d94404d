// Go: goroutines on one processor, like the greenlets of one hub.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

type result struct {
	Case        string  `json:"case"`
	Operations  int     `json:"operations"`
	Nanoseconds float64 `json:"nanoseconds,omitempty"`
	Bytes       float64 `json:"bytes,omitempty"`
}

var quick bool

func scaled(count int) int {
	if quick {
		return count / 10
	}
	return count
}

func report(name string, operations int, spent time.Duration) {
	emit(result{Case: name, Operations: operations, Nanoseconds: float64(spent.Nanoseconds()) / float64(operations)})
}

func emit(value result) {
	text, _ := json.Marshal(value)
	fmt.Println(string(text))
}

func yields(count int) func(string) {
	return func(name string) {
		each := scaled(4_000_000) / count
		var done sync.WaitGroup
		gate := make(chan struct{})
		for i := 0; i < count; i++ {
			done.Add(1)
			go func() {
				<-gate
				for j := 0; j < each; j++ {
					runtime.Gosched()
				}
				done.Done()
			}()
		}
		runtime.Gosched()
		start := time.Now()
		close(gate)
		done.Wait()
		report(name, each*count, time.Since(start))
	}
}

func spawnJoin(name string) {
	count := scaled(1_000_000)
	start := time.Now()
	for i := 0; i < count; i++ {
		done := make(chan struct{})
		go func() { close(done) }()
		<-done
	}
	report(name, count, time.Since(start))
}

func spawnAtOnce(count int) func(string) {
	return func(name string) {
		rounds := 1
		if count < 100_000 {
			rounds = scaled(1_000_000) / count
		}
		start := time.Now()
		for round := 0; round < rounds; round++ {
			var done sync.WaitGroup
			done.Add(count)
			for i := 0; i < count; i++ {
				go done.Done()
			}
			done.Wait()
		}
		report(name, count*rounds, time.Since(start))
	}
}

func queue(name string) {
	count := scaled(10_000_000)
	channel := make(chan int, 128)
	start := time.Now()
	go func() {
		for i := 0; i < count; i++ {
			channel <- i
		}
		close(channel)
	}()
	for range channel {
	}
	report(name, count, time.Since(start))
}

func timers(cancelling bool) func(string) {
	return func(name string) {
		const count = 100_000
		started := make([]*time.Timer, count)
		start := time.Now()
		for i := range started {
			started[i] = time.AfterFunc(time.Minute+time.Duration(i*7919%600_000)*time.Millisecond, func() {})
		}
		spent := time.Since(start)
		start = time.Now()
		for _, timer := range started {
			timer.Stop()
		}
		cancelled := time.Since(start)
		if cancelling {
			report(name, count, cancelled)
		} else {
			report(name, count, spent)
		}
	}
}

// The processor time of this process.
func processorTime() time.Duration {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// The moments of run-case.
func randomMoments(count int) func() time.Duration {
	state := uint64(1)
	return func() time.Duration {
		state = state*6364136223846793005 + 1442695040888963407
		return 100*time.Millisecond + time.Duration((state>>33)%uint64(count*10))*time.Microsecond
	}
}

func timersRandom(name string) {
	count := scaled(100_000)
	next := randomMoments(count)
	var done sync.WaitGroup
	done.Add(count)
	start := processorTime()
	for i := 0; i < count; i++ {
		time.AfterFunc(next(), done.Done)
	}
	done.Wait()
	report(name, count, processorTime()-start)
}

func sleepRandom(name string) {
	count := scaled(100_000)
	next := randomMoments(count)
	gate := make(chan struct{})
	var begun, done sync.WaitGroup
	begun.Add(count)
	done.Add(count)
	for i := 0; i < count; i++ {
		moment := next()
		go func() {
			begun.Done()
			<-gate
			time.Sleep(moment)
			done.Done()
		}()
	}
	begun.Wait()
	start := processorTime()
	close(gate)
	done.Wait()
	report(name, count, processorTime()-start)
}

// The memory of this process in bytes: resident memory and page tables.
func memory() float64 {
	text, _ := os.ReadFile("/proc/self/status")
	kibibytes := 0
	for _, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, "VmRSS:") || strings.HasPrefix(line, "VmPTE:") {
			found, _ := strconv.Atoi(strings.Fields(line)[1])
			kibibytes += found
		}
	}
	return float64(kibibytes << 10)
}

func asleep(count int) func(string) {
	return func(name string) {
		before := memory()
		var begun sync.WaitGroup
		begun.Add(count)
		for i := 0; i < count; i++ {
			go func() {
				begun.Done()
				time.Sleep(time.Hour)
			}()
		}
		begun.Wait()
		// Waits for goroutines that have started but do not sleep yet.
		time.Sleep(200 * time.Millisecond)
		emit(result{Case: name, Operations: count, Bytes: (memory() - before) / float64(count)})
	}
}

func wake(name string) {
	runtime.GOMAXPROCS(2)
	count := scaled(200_000)
	ping, pong := make(chan struct{}), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		for range ping {
			pong <- struct{}{}
		}
	}()
	runtime.LockOSThread()
	start := time.Now()
	for i := 0; i < count; i++ {
		ping <- struct{}{}
		<-pong
	}
	report(name, count, time.Since(start))
}

func serve(echoes bool) func(string) {
	return func(string) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Printf("{\"port\": %d}\n", listener.Addr().(*net.TCPAddr).Port)
		go func() {
			bufio.NewReader(os.Stdin).ReadByte()
			os.Exit(0)
		}()
		for {
			connection, err := listener.Accept()
			if err != nil {
				continue
			}
			if !echoes {
				connection.Close()
				continue
			}
			go func() {
				defer connection.Close()
				buffer := make([]byte, 4096)
				for {
					size, err := connection.Read(buffer)
					if err != nil {
						return
					}
					if _, err := connection.Write(buffer[:size]); err != nil {
						return
					}
				}
			}()
		}
	}
}

func main() {
	runtime.GOMAXPROCS(1)
	cases := []struct {
		name string
		run  func(string)
	}{
		{"yield-1", yields(1)}, {"yield-2", yields(2)}, {"yield-100", yields(100)},
		{"yield-1000", yields(1000)}, {"yield-10000", yields(10000)},
		{"spawn-join", spawnJoin}, {"spawn-join-1000", spawnAtOnce(1000)}, {"spawn-join-1000000", spawnAtOnce(1_000_000)},
		{"queue-128", queue},
		{"timers-start", timers(false)}, {"timers-cancel", timers(true)},
		{"timers-random", timersRandom}, {"sleep-random", sleepRandom},
		{"asleep-100000", asleep(100_000)}, {"asleep-1000000", asleep(1_000_000)},
		{"post-sleeping", wake},
		{"serve-echo", serve(true)}, {"serve-close", serve(false)},
	}
	quick = len(os.Args) > 2 && os.Args[2] == "--quick"
	for _, one := range cases {
		if len(os.Args) > 1 && os.Args[1] == "--list" {
			fmt.Println(one.name)
		} else if len(os.Args) > 1 && os.Args[1] == one.name {
			one.run(one.name)
			return
		}
	}
	if len(os.Args) < 2 || os.Args[1] != "--list" {
		fmt.Fprintf(os.Stderr, "usage: %s --list | CASE [--quick]\n", os.Args[0])
		os.Exit(64)
	}
}
