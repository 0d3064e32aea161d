// Command bench measures what a request through the ingress gateway costs, in the
// same run as its peers: a real Envoy with the same bootstrap, nginx and HAProxy
// with the like of it, and a bare relay, the floor. CPU per request is what counts;
// every figure is the ratio of two contenders in the same round, because the
// machine's speed swings between rounds and the ratio does not.
//
// It writes bench/RESULTS.md and bench/results.json, and prints the table.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"
)

func main() {
	rounds := flag.Int("rounds", 9, "rounds; each contender runs once in each")
	length := flag.Duration("length", 2*time.Second, "length of one run")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *rounds, *length); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, rounds int, length time.Duration) error {
	dir, err := os.MkdirTemp("", "lateen-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	contenders, stop, err := start(ctx, dir)
	defer stop()
	if err != nil {
		return err
	}
	samples := map[string][]sample{}
	for round := range rounds + 1 { // the first warms up and is not counted
		for _, c := range contenders {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			s, err := measure(ctx, c, length)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if round > 0 {
				samples[c.name] = append(samples[c.name], s)
				fmt.Fprintf(os.Stderr, "round %d/%d %-8s %6.1f µs CPU/request %8.0f requests/s p99 %s\n", round, rounds, c.name, s.cpu, s.rate, s.p99)
			}
		}
	}
	return publish(contenders, samples)
}
