// Command lateen-sample runs the sample applications where nothing else of Lateen
// is: as the program of a container. `lateen sample` is the same for people.
//
//	lateen-sample httpbin --listen :80
//	lateen-sample tcp-echo 9000,9001,9002 hello
//	lateen-sample sleep infinity
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/lateen-mesh/lateen/samples"
)

// heapGrowth is GOGC: collecting early costs these little, and many of them may run.
const heapGrowth = 25

func main() {
	debug.SetGCPercent(heapGrowth)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	err := start(ctx, args)
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "error:", err)
	failure, ok := errors.AsType[*samples.Error](err)
	if ok && failure.Hint != "" {
		fmt.Fprintln(os.Stderr, "hint:", failure.Hint)
	}
	if ok && failure.Usage {
		return 2
	}
	return 1
}

func start(ctx context.Context, args []string) error {
	if len(args) == 0 {
		args = []string{"--help"}
	}
	for _, c := range samples.Commands() {
		if c.Name == args[0] {
			return c.Run(ctx, args[1:], os.Stderr)
		}
	}
	if args[0] == "-h" || args[0] == "--help" {
		fmt.Println("Usage: lateen-sample APPLICATION [ARGUMENTS]")
		for _, c := range samples.Commands() {
			fmt.Printf("  %-12s %s\n", c.Name, c.Short)
		}
		return nil
	}
	return &samples.Error{Err: fmt.Errorf("unknown application %q", args[0]), Hint: "see: lateen-sample --help", Usage: true}
}
