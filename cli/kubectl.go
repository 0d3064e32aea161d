package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/kubectl/pkg/cmd"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"

	"github.com/lateen-mesh/lateen/local"
)

// kubectlGroup is where help shows the commands that are kubectl's own.
const kubectlGroup = "kubectl"

// kubectlCommands are kubectl's, with its help lines. They act on the mesh of a state
// directory: --state DIR says which, --kubeconfig FILE another cluster.
var kubectlCommands = [][2]string{
	{"get", "Display one or many objects"},
	{"describe", "Show details of an object"},
	{"apply", "Apply objects from files or standard input"},
	{"create", "Create an object from a file or from flags"},
	{"delete", "Delete objects"},
	{"edit", "Edit an object in an editor"},
	{"patch", "Change fields of an object"},
	{"replace", "Replace an object"},
	{"label", "Change labels of an object"},
	{"annotate", "Change annotations of an object"},
	{"set", "Set features of objects: image, env, resources"},
	{"scale", "Change the number of replicas"},
	{"rollout", "Follow, restart or undo a rollout"},
	{"expose", "Make a Service for a workload"},
	{"run", "Run an image in a pod"},
	{"exec", "Run a command in a container"},
	{"attach", "Attach to a running container"},
	{"cp", "Copy files to and from containers"},
	{"port-forward", "Forward ports of this machine to a pod"},
	{"events", "List events"},
	{"diff", "Show what apply would change"},
	{"explain", "Describe the fields of a kind"},
	{"api-resources", "List the kinds that the API has"},
	{"auth", "Inspect what is allowed"},
}

// newKubectlCommands are the entries of our own command tree; flags are parsed by
// kubectl's commands themselves.
func newKubectlCommands(s Streams) []*cobra.Command {
	var all []*cobra.Command
	for _, c := range kubectlCommands {
		name := c[0]
		all = append(all, &cobra.Command{
			Use: name, Short: c[1], GroupID: kubectlGroup, DisableFlagParsing: true,
			RunE: func(_ *cobra.Command, args []string) error { return kubectl(s, append([]string{name}, args...)) },
		})
	}
	return all
}

// An exitCode ends the program with a code; what there is to say was said.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// kubectl runs one of kubectl's own commands against the mesh of a state directory.
func kubectl(s Streams, args []string) (err error) {
	state, args := takeFlag(args, "--state")
	config := genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag().WithDiscoveryBurst(300).WithDiscoveryQPS(50)
	if !wantsHelp(args) && !hasFlag(args, "--kubeconfig") {
		path, err := kubeconfigOf(state)
		if err != nil {
			return err
		}
		config.KubeConfig = &path
	}
	// kubectl ends the process where a command fails; here that is an error like others.
	cmdutil.BehaviorOnFatal(func(message string, code int) { panic(fatal{message, code}) })
	defer func() {
		if f, ok := recover().(fatal); ok {
			err = f.report(s)
		}
	}()
	root := cmd.NewKubectlCommand(cmd.KubectlOptions{Arguments: append([]string{"kubectl"}, args...), ConfigFlags: config,
		IOStreams: genericiooptions.IOStreams{In: s.In, Out: s.Out, ErrOut: s.Err}})
	root.Use = "lateen"
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetArgs(args)
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	return root.Execute()
}

// A fatal is what a command of kubectl ends with.
type fatal struct {
	message string
	code    int
}

func (f fatal) report(s Streams) error {
	if f.message != "" {
		fmt.Fprintln(s.Err, strings.TrimSuffix(f.message, "\n"))
	}
	return exitCode(f.code)
}

// kubeconfigOf is the file that a running mesh has written.
func kubeconfigOf(state string) (string, error) {
	dir, err := stateDir(state)
	if err != nil {
		return "", err
	}
	st, err := local.ReadRecord(dir)
	if err != nil {
		return "", err
	}
	if st.PID == 0 {
		return "", noMesh(dir)
	}
	path := filepath.Join(dir, "kubeconfig")
	if _, err := os.Stat(path); err != nil {
		return "", withHint(errors.New("the mesh in "+dir+" has no Kubernetes API: it was started without workloads"), "start it with: lateen up --pods")
	}
	return path, nil
}

func noMesh(dir string) error {
	return withHint(errors.New("no mesh runs in "+dir), "start one with: lateen up PATH, or name its directory: --state DIR")
}

// takeFlag takes the value of a flag out of arguments that somebody else parses.
// What follows "--" belongs to a command in a container.
func takeFlag(args []string, name string) (value string, rest []string) {
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == "--":
			return value, append(rest, args[i:]...)
		case args[i] == name && i+1 < len(args):
			value = args[i+1]
			i++
		case strings.HasPrefix(args[i], name+"="):
			value = strings.TrimPrefix(args[i], name+"=")
		default:
			rest = append(rest, args[i])
		}
	}
	return value, rest
}

func hasFlag(args []string, name string) bool {
	for _, a := range args {
		if a == "--" {
			return false
		}
		if a == name || strings.HasPrefix(a, name+"=") {
			return true
		}
	}
	return false
}

func wantsHelp(args []string) bool { return hasFlag(args, "--help") || hasFlag(args, "-h") }
