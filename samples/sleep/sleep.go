// Package sleep is a program that does nothing for a while, as the first process of
// a container from which people run curl.
//
// The kernel gives a first process no default for signals: one that does not ask
// for SIGTERM is not ended by it. And it makes it the parent of processes whose own
// parent has gone, which stay as zombies unless it collects them. This one does both.
package sleep

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Forever is what "infinity" means, about 292 years.
const Forever = time.Duration(math.MaxInt64)

// Parse reads the arguments of sleep(1): numbers with a unit s, m, h or d, seconds
// without one, added up; or "infinity".
func Parse(args []string) (time.Duration, error) {
	if len(args) == 0 {
		return 0, errors.New("how long is missing")
	}
	total := 0.0
	for _, arg := range args {
		text, unit := arg, 1.0
		for suffix, seconds := range map[string]float64{"s": 1, "m": 60, "h": 3600, "d": 86400} {
			if number, ok := strings.CutSuffix(arg, suffix); ok {
				text, unit = number, seconds
			}
		}
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || n < 0 || math.IsNaN(n) {
			return 0, fmt.Errorf("%q is not a time", arg)
		}
		total += n * unit
	}
	if total >= Forever.Seconds() {
		return Forever, nil
	}
	return time.Duration(total * float64(time.Second)), nil
}

// For waits until the time is over or ctx ends, and collects children that others
// have left to this process meanwhile.
func For(ctx context.Context, d time.Duration) {
	gone := make(chan os.Signal, 1)
	signal.Notify(gone, syscall.SIGCHLD)
	defer signal.Stop(gone)
	over := time.NewTimer(d)
	defer over.Stop()
	for {
		select {
		case <-gone:
			collect()
		case <-over.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// collect takes the exit codes of all children that have ended.
func collect() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if pid <= 0 && !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}
