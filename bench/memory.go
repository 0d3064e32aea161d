package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/lateen-mesh/lateen/bench/process"
)

// settle is how long a process has to give back what it does not use.
const settle = 8 * time.Second

// idleSize is what a process takes that was just started.
func idleSize(ctx context.Context, b *bench, c contender, _ time.Duration) (sample, error) {
	return b.fresh(ctx, c, false, func(c contender) (float64, error) {
		err := pause(ctx)
		return process.Resident(c.pid), err
	})
}

// loadedSize is what a process takes that knows 1,000 services with 10 endpoints each.
func loadedSize(ctx context.Context, b *bench, c contender, _ time.Duration) (sample, error) {
	return b.fresh(ctx, c, true, func(c contender) (float64, error) {
		err := pause(ctx)
		return process.Resident(c.pid), err
	})
}

// idle is what each of n idle connections takes that have had one answer.
func idle(l listener, n int) func(context.Context, *bench, contender, time.Duration) (sample, error) {
	return func(ctx context.Context, b *bench, c contender, _ time.Duration) (sample, error) {
		return b.fresh(ctx, c, false, func(c contender) (float64, error) {
			if err := pause(ctx); err != nil {
				return 0, err
			}
			before := process.Resident(c.pid)
			done, err := b.hold(ctx, c, l, n)
			if err != nil {
				return 0, err
			}
			defer done()
			err = pause(ctx)
			return (process.Resident(c.pid) - before) * 1024 / float64(n), err
		})
	}
}

// hold opens connections and keeps them until done is called.
func (b *bench) hold(ctx context.Context, c contender, l listener, n int) (done func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	scheme := "plain"
	if l == tlsIn {
		scheme = "tls"
	}
	cmd := exec.CommandContext(ctx, "taskset", "-c", loadCore, self, "-generate", "hold", b.dir, strconv.Itoa(c.port(l)), scheme, strconv.Itoa(n)) //nolint:gosec // ourselves
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	done = func() {
		_ = in.Close()
		_ = cmd.Wait()
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		done()
		return nil, fmt.Errorf("connections: %w: %s", err, line)
	}
	return done, nil
}

// fresh starts a contender of its own on ports of its own.
func (b *bench) fresh(ctx context.Context, c contender, loaded bool, look func(c contender) (float64, error)) (sample, error) {
	kind := "fresh"
	if loaded {
		kind = "loaded"
	}
	argv := append([]string{}, c.argv...)
	for i, a := range argv {
		if a == "-c" {
			argv[i+1] = b.config(c.name, kind)
		}
	}
	own := &running{dir: b.dir}
	defer own.stop()
	pid, err := own.launch(proxyCore, argv...)
	if err != nil {
		return sample{}, err
	}
	c.base, c.pid = freshBase, pid
	if err := awaitPort(ctx, c); err != nil {
		return sample{}, err
	}
	v, err := look(c)
	return sample{value: v}, err
}

func pause(ctx context.Context) error {
	t := time.NewTimer(settle)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
