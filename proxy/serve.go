package proxy

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Serve runs the proxy of a command line until a signal ends it: SIGTERM drains, a
// second one or SIGINT ends at once, SIGUSR1 opens the log files again. In mode
// "validate" it says whether the bootstrap is good.
func Serve(o Options) error {
	b, err := Load(o.ConfigPath, o.ConfigYAML, o.AllowUnknownStatic)
	if err == nil && o.Mode == "validate" {
		if err = Validate(b, o, os.Stderr); err == nil {
			fmt.Printf("configuration '%s' OK\n", o.ConfigPath)
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("error initializing configuration '%s': %w", o.ConfigPath, err)
	}
	ctx, drain := context.WithCancel(context.Background())
	defer drain()
	stop, reopen := make(chan struct{}), make(chan struct{}, 1)
	o.Stop, o.Reopen = stop, reopen
	go signals(drain, sync.OnceFunc(func() { close(stop) }), reopen)
	return Run(ctx, b, o, os.Stderr)
}

func signals(drain, stop func(), reopen chan<- struct{}) {
	c := make(chan os.Signal, 4)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1)
	for draining := false; ; {
		switch s := <-c; {
		case s == syscall.SIGUSR1:
			select {
			case reopen <- struct{}{}:
			default: // one is waiting already
			}
		case s == syscall.SIGTERM && !draining:
			draining = true
			drain()
		default:
			stop()
		}
	}
}
