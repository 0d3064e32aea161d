// Package cli holds the commands of `lateen`, which is `istioctl` when called by
// that name; one file per command.
//
// `lateen up` in the foreground ends with the process becoming the supervisor.
//
// Results go to stdout, all else to stderr. A failure is a line "error: …" and,
// where something can be done about it, a line "hint: …". Exit codes:
//
//	0  done
//	1  failed
//	2  wrong flags or arguments
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/local"
	"github.com/lateen-mesh/lateen/wellknown"
)

// Streams are the standard streams of a command.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Run executes a command line, args[0] being the program's name, and returns its
// exit code. It ends early when the context does.
func Run(ctx context.Context, args []string, s Streams) int {
	name := filepath.Base(args[0])
	root := newLateen(s)
	if name == "istioctl" {
		root = newIstioctl()
	}
	root.SetArgs(args[1:])
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if code, ok := errors.AsType[exitCode](err); ok {
		return int(code)
	}
	local.WriteError(s.Err, err)
	if _, ok := errors.AsType[*usageError](err); ok {
		return 2
	}
	return 1
}

func newLateen(s Streams) *cobra.Command {
	root := &cobra.Command{
		Use: "lateen", Short: "A service mesh for this machine and for Kubernetes", Version: wellknown.Build(),
		SilenceErrors: true, SilenceUsage: true, Args: cobra.ArbitraryArgs,
		RunE: noCommand,
	}
	root.SetFlagErrorFunc(flagError)
	root.AddGroup(&cobra.Group{ID: kubectlGroup, Title: "Commands of kubectl, on the mesh of --state DIR:"})
	root.AddCommand(newUp(), newDown(), newStatus(), newLogs(s), newVersion(false), newSampleCommand(), newKubeInject(), newValidate(), newAnalyze(), newExplain())
	root.AddCommand(newProxyConfig(), newProxyStatus(), newMeshWait(s), newAuthorityCommand())
	root.AddCommand(newKubectlCommands(s)...)
	return root
}

// noCommand is what a command does that only has others: without one of them it shows
// what there is.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	hint := "see: " + cmd.CommandPath() + " --help"
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = fmt.Sprintf("did you mean %q?", near[0])
	}
	return wrongUsage(fmt.Errorf("unknown command %q", args[0]), hint)
}

// A usageError is a wrong command line.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

func wrongUsage(err error, hint string) error { return &usageError{withHint(err, hint)} }

func flagError(cmd *cobra.Command, err error) error {
	return wrongUsage(err, "see: "+cmd.CommandPath()+" --help")
}

// arguments makes a failed check of the arguments count as wrong usage.
func arguments(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return flagError(cmd, err)
		}
		return nil
	}
}

func withHint(err error, hint string) error { return &local.Error{Err: err, Hint: hint} }

// encode writes a value in the form of -o.
func encode(w io.Writer, form string, v any) error {
	switch form {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	case "yaml":
		text, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}
	return checkForm(form)
}

// checkForm finds a wrong -o before anything is done; empty is the form for people.
func checkForm(form string) error {
	switch form {
	case "", "json", "yaml":
		return nil
	}
	return &usageError{fmt.Errorf("-o %s: must be json or yaml", form)}
}
