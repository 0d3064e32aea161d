// Command bench measures what traffic through the proxy costs, in the same run as its
// peers: a real Envoy with the same bootstrap, nginx and HAProxy with the like of it, and
// a bare relay, the floor. CPU per request is what counts; every figure is the ratio of
// two contenders in the same round, because the machine's speed swings between rounds
// and the ratio does not. cases.go has the table of all figures and their bounds.
//
// It writes bench/RESULTS.md and bench/results.json, and prints the table. Started by
// itself with -generate it is one of the generators of load (generate.go).
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"time"
)

func main() {
	rounds := flag.Int("rounds", 9, "rounds; each contender runs once in each")
	length := flag.Duration("length", 2*time.Second, "length of one run")
	only := flag.String("only", "", "regular expression: only cases of such a name, and nothing is recorded")
	generate := flag.String("generate", "", "be a generator of load or a backend, for the benchmark itself")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	if *generate != "" {
		err = generateLoad(ctx, *generate, flag.Args())
	} else {
		err = run(ctx, *rounds, *length, *only)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, rounds int, length time.Duration, only string) error {
	chosen, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	dir, err := os.MkdirTemp("", "lateen-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b, err := start(ctx, dir)
	defer b.stop()
	if err != nil {
		return err
	}
	var results []outcome
	for _, k := range cases {
		if !chosen.MatchString(k.name) {
			continue
		}
		out, err := b.measure(ctx, k, rounds, length)
		if err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		results = append(results, out)
	}
	return publish(b, results, only == "")
}

// measure runs one case: all of its contenders in turn, once in each round.
func (b *bench) measure(ctx context.Context, k benchmark, rounds int, length time.Duration) (outcome, error) {
	out := outcome{benchmark: k, samples: map[string][]sample{}}
	warm := 1
	if k.once {
		rounds, warm = min(rounds, onceRounds), 0
	}
	for round := range rounds + warm { // the first warms up and is not counted
		for _, c := range k.who(b.contenders) {
			if ctx.Err() != nil {
				return out, ctx.Err()
			}
			s, err := k.measure(ctx, b, c, length)
			if err != nil {
				return out, fmt.Errorf("%s: %w", c.name, err)
			}
			if round >= warm {
				out.samples[c.name] = append(out.samples[c.name], s)
				fmt.Fprintf(os.Stderr, "%s round %d/%d %-8s %8.1f %s %8.0f/s %s\n", k.name, round+1-warm, rounds, c.name, s.value, k.unit, s.rate, s.p99)
			}
		}
	}
	if k.name == "http1-mesh" {
		b.envoyPeak = medianRate(out.samples["envoy"])
	}
	return out, nil
}
