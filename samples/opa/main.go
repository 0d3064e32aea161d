// Command lateen-opa is the Open Policy Agent with a gRPC server that proxies ask whether a
// request may pass: what OPA-Envoy is, built from OPA's library and package authz. Its commands
// and options are OPA's own.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/open-policy-agent/opa/cmd"
	"github.com/open-policy-agent/opa/v1/runtime"
	"github.com/spf13/cobra"

	"github.com/lateen-mesh/lateen/samples/opa/authz"
)

func main() {
	err := command().Execute()
	exit, coded := errors.AsType[*cmd.ExitError](err)
	switch {
	case coded:
		os.Exit(exit.Exit)
	case err != nil:
		os.Exit(1)
	}
}

// command is OPA's command with the plugin. `run` tells nobody its version, unless it is asked to.
func command() *cobra.Command {
	runtime.RegisterPlugin(authz.Name, authz.Factory{})
	root := cmd.Command(nil, "OPA")
	run, _, err := root.Find([]string{"run"})
	if err == nil {
		err = run.Flags().Set("skip-version-check", "true")
	}
	if err != nil {
		panic(fmt.Sprintf("this OPA has no run --skip-version-check: %v", err))
	}
	return root
}
