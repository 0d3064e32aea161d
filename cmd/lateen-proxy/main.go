// lateen-proxy is the data plane's process. It takes Envoy's flags and bootstrap.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/lateen-mesh/lateen/proxy"
)

func main() {
	o, err := proxy.ParseArgs(os.Args[1:])
	if err == nil && !info(o) {
		err = serve(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// info prints what the command line asks to know instead of serving.
func info(o proxy.Options) bool {
	switch {
	case o.Help:
		fmt.Print(proxy.Usage(os.Args[0]))
	case o.Version:
		fmt.Printf("%s  version: %s\n", os.Args[0], proxy.Version())
	case o.HotRestartVersion:
		fmt.Println("disabled")
	default:
		return false
	}
	return true
}

func serve(o proxy.Options) error {
	b, err := proxy.Load(o.ConfigPath, o.ConfigYAML, o.AllowUnknownStatic)
	if err == nil && o.Mode == "validate" {
		if err = proxy.Validate(b, o, os.Stderr); err == nil {
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
	return proxy.Run(ctx, b, o, os.Stderr)
}

// signals: SIGTERM drains, a second one or SIGINT ends at once, SIGUSR1 opens the log
// files again.
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
