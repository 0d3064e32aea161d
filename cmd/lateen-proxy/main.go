// lateen-proxy is the data plane's process. It takes Envoy's flags and bootstrap.
package main

import (
	"fmt"
	"os"

	"github.com/lateen-mesh/lateen/proxy"
)

func main() {
	o, err := proxy.ParseArgs(os.Args[1:])
	if err == nil && !info(o) {
		err = proxy.Serve(o)
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
