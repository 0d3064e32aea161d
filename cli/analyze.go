package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lateen-mesh/lateen/control/analyze"
	"github.com/lateen-mesh/lateen/control/config"
)

// Exit codes of `analyze` that scripts know.
const (
	foundIssues    exitCode = 79
	unreadableFile exitCode = 65
)

// An analysis is `analyze`: what is wrong with the configuration of a mesh, of files, or of
// the mesh as it would be with the files.
type analysis struct {
	connection
	all, useKube, color, verbose, ignoreUnknown, list bool

	form, failure, output, meshFile string
	suppress, analyzers, excluded   []string
	timeout                         time.Duration
}

func newAnalyze() *cobra.Command {
	a := &analysis{}
	cmd := &cobra.Command{
		Use: "analyze [FILE|DIRECTORY]...", Short: "Analyze the mesh's configuration and print validation messages",
		Long: `Analyze the configuration of the mesh that runs, as it would be with the given files in
place. With --use-kube=false only the files are looked at, and what they say of the mesh's
own kinds: pods, services and namespaces of a cluster are more than any file tells. Where no
API can be reached, the files are taken for all that there is.

Exit code 79 means that there are messages of the level --failure-threshold or worse.`,
		Example: `  istioctl analyze
  istioctl analyze --use-kube=false my-app-config/
  istioctl analyze -A -S "IST0103=Pod *.testing"`,
		RunE: a.run,
	}
	set := cmd.Flags()
	a.add(set)
	set.BoolVarP(&a.all, "all-namespaces", "A", false, "analyze all namespaces")
	set.BoolVarP(&a.useKube, "use-kube", "k", true, "look at the mesh that runs, not only at files")
	set.BoolVar(&a.color, "color", false, "color the levels (default where standard output is a terminal)")
	set.BoolVarP(&a.verbose, "verbose", "v", false, "say which analyzers ran")
	set.BoolVar(&a.ignoreUnknown, "ignore-unknown", false, "do not fail because of documents that cannot be read")
	set.BoolVarP(&a.list, "list-analyzers", "L", false, "list the analyzers, and do nothing else")
	set.StringVarP(&a.form, "output", "o", "log", "log, json or yaml")
	set.StringVar(&a.failure, "failure-threshold", "Error", "least level that makes the command fail: Info, Warning or Error")
	set.StringVar(&a.output, "output-threshold", "Info", "least level that is shown: Info, Warning or Error")
	set.StringVar(&a.meshFile, "meshConfigFile", "", "file with the MeshConfig, in place of the mesh's")
	set.StringArrayVarP(&a.suppress, "suppress", "S", nil, `messages to leave out, as CODE="KIND NAME.NAMESPACE", with * for anything; may be repeated`)
	set.StringArrayVar(&a.analyzers, "analyzer", nil, "analyzer to run, by name (default all); may be repeated")
	set.StringSliceVar(&a.excluded, "exclude-namespaces", nil, "namespaces of which nothing is said")
	set.DurationVar(&a.timeout, "timeout", 30*time.Second, "how long reading the mesh may take")
	set.StringP("revision", "r", "default", "(accepted: all revisions are read)")
	set.BoolP("recursive", "R", true, "(accepted: directories are read with all below them)")
	return cmd
}

// run analyzes, prints and judges.
func (a *analysis) run(cmd *cobra.Command, args []string) error {
	if a.list {
		return listAnalyzers(cmd.OutOrStdout())
	}
	want, failure, output, err := a.choices(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	m, files, unreadable, err := a.read(cmd, args)
	if err != nil {
		return err
	}
	found := slices.DeleteFunc(m.Messages(want), func(f analyze.Message) bool {
		return f.Object.Namespace != "" && slices.Contains(a.excluded, f.Object.Namespace)
	})
	if a.verbose {
		a.tell(cmd.ErrOrStderr(), m, want)
	}
	visible := slices.DeleteFunc(slices.Clone(found), func(f analyze.Message) bool { return f.Level < output })
	color := a.color || !cmd.Flags().Changed("color") && isTerminal(cmd.OutOrStdout()) && os.Getenv("TERM") != "dumb"
	if err := printMessages(cmd.OutOrStdout(), visible, a.form, color); err != nil {
		return err
	}
	if len(visible) == 0 {
		a.fine(cmd.ErrOrStderr(), files, unreadable)
	}
	switch {
	case a.form != "log":
		return nil
	case slices.ContainsFunc(found, func(f analyze.Message) bool { return f.Level >= failure }):
		fmt.Fprintf(cmd.ErrOrStderr(), "Error: Analyzers found issues when analyzing %s.\n"+
			"See https://istio.io/latest/docs/reference/config/analysis for more information about causes and resolutions.\n", a.target())
		return foundIssues
	case unreadable > 0 && !a.ignoreUnknown:
		return unreadableFile
	}
	return nil
}

// choices reads the flags that have a form.
func (a *analysis) choices(errs io.Writer) (want analyze.Selection, failure, output analyze.Level, err error) {
	if a.form != "log" {
		if err := checkForm(a.form); err != nil {
			return want, 0, 0, err
		}
	}
	if failure, err = analyze.ParseLevel(a.failure); err != nil {
		return want, 0, 0, wrongUsage(fmt.Errorf("--failure-threshold: %w", err), "")
	}
	if output, err = analyze.ParseLevel(a.output); err != nil {
		return want, 0, 0, wrongUsage(fmt.Errorf("--output-threshold: %w", err), "")
	}
	if !a.all {
		want.Namespace = a.inForce()
	}
	for _, name := range a.analyzers {
		if !slices.ContainsFunc(analyze.Analyzers(), func(x analyze.Analyzer) bool { return x.Name == name }) {
			return want, 0, 0, wrongUsage(fmt.Errorf("--analyzer %s: there is no such analyzer", name), "see -L")
		}
	}
	want.Analyzers = a.analyzers
	for _, text := range a.suppress {
		s, err := analyze.ParseSuppression(text)
		if err != nil {
			return want, 0, 0, wrongUsage(fmt.Errorf("--suppress: %w", err), "")
		}
		if !analyze.Known(s.Code) {
			fmt.Fprintf(errs, "Warning: Supplied message code '%s' is an unknown message code and will not have any effect.\n", s.Code)
		}
		want.Suppress = append(want.Suppress, s)
	}
	return want, failure, output, nil
}

// inForce is the namespace whose objects are told of: that of -n, else of the kubeconfig
// that counts.
func (a *analysis) inForce() string {
	if a.namespace != "" {
		return a.namespace
	}
	if a.useKube {
		if namespace, err := a.namespaceInForce(); err == nil { // who is asked in vain says why later
			return namespace
		}
	}
	return config.DefaultNamespace
}

// read fills a mesh with what runs and the files over it. unreadable counts files with
// documents that cannot be read.
func (a *analysis) read(cmd *cobra.Command, args []string) (m *analyze.Mesh, files []string, unreadable int, err error) {
	options := analyze.Options{Namespace: a.inForce(), RootNamespace: a.istioNamespace, Partial: !a.useKube, Files: !a.useKube}
	if options.Files {
		options.ReadFile = readCertificate
	}
	if a.meshFile != "" {
		if options.MeshConfig, err = meshConfigFile(cmd.InOrStdin(), a.meshFile); err != nil {
			return nil, nil, 0, err
		}
	}
	m = analyze.NewMesh(options)
	if a.useKube {
		ctx, cancel := context.WithTimeout(cmd.Context(), a.timeout)
		defer cancel()
		err := a.readMesh(ctx, m, cmd.ErrOrStderr())
		if errors.Is(err, errNoAPI) && len(args) > 0 && !cmd.Flags().Changed("use-kube") && a.state == "" {
			fmt.Fprintln(cmd.ErrOrStderr(), "There is no Kubernetes API to ask: the files are taken for all that there is.")
			options.Files, options.ReadFile = true, readCertificate
			m, err = analyze.NewMesh(options), nil
		}
		if err != nil {
			return nil, nil, 0, err
		}
	}
	files, failures := expand(args)
	if len(failures) > 0 {
		return nil, nil, 0, errors.New(strings.Join(failures, "; "))
	}
	for _, name := range files {
		text, err := readUpTo(cmd.InOrStdin(), name, maxDocuments)
		if err != nil {
			return nil, nil, 0, err
		}
		problems := m.AddText(name, text)
		for _, p := range problems {
			fmt.Fprintf(cmd.ErrOrStderr(), "Error(s) adding files: %v\n", p)
		}
		unreadable += min(len(problems), 1)
	}
	return m, files, unreadable, nil
}

// readCertificate reads a file that a Gateway names.
func readCertificate(name string) ([]byte, error) {
	if fi, err := os.Stat(name); err != nil || !fi.Mode().IsRegular() {
		return nil, os.ErrNotExist
	}
	return readUpTo(nil, name, maxDocuments)
}

// target is what was analyzed, in words.
func (a *analysis) target() string {
	if a.all {
		return "all namespaces"
	}
	return "namespace: " + a.inForce()
}

// fine says that there is nothing to say.
func (a *analysis) fine(errs io.Writer, files []string, unreadable int) {
	switch {
	case unreadable > 0:
		noun := "files"
		if unreadable == 1 {
			noun = "file"
		}
		fmt.Fprintf(errs, "No validation issues found when analyzing %s (but %d %s could not be parsed).\n", a.target(), unreadable, noun)
	case len(files) > 1:
		fmt.Fprintf(errs, "✔ No validation issues found when analyzing:\n  - %s\n", strings.Join(files, "\n  - "))
	case len(files) == 1:
		fmt.Fprintf(errs, "✔ No validation issues found when analyzing %s.\n", files[0])
	default:
		fmt.Fprintf(errs, "✔ No validation issues found when analyzing %s.\n", a.target())
	}
}

// tell says which analyzers ran.
func (a *analysis) tell(errs io.Writer, m *analyze.Mesh, want analyze.Selection) {
	run, left := m.Split(want)
	fmt.Fprintf(errs, "Analyzed resources in %s\n", a.target())
	for _, part := range []struct {
		title string
		names []string
	}{{"Skipped analyzers:", left}, {"Executed analyzers:", run}} {
		if len(part.names) > 0 {
			fmt.Fprintf(errs, "%s\n\t%s\n", part.title, strings.Join(part.names, "\n\t"))
		}
	}
	fmt.Fprintln(errs)
}

func listAnalyzers(out io.Writer) error {
	for _, x := range analyze.Analyzers() {
		if _, err := fmt.Fprintf(out, "* %s:\n    %s\n", x.Name, x.Description); err != nil {
			return err
		}
	}
	return nil
}

// printMessages writes messages in the form of -o, which may be log.
func printMessages(out io.Writer, all []analyze.Message, form string, color bool) error {
	if form != "log" {
		if all == nil {
			all = []analyze.Message{}
		}
		return encode(out, form, all)
	}
	for _, m := range all {
		text := m.String()
		if color {
			text = m.Colored()
		}
		if _, err := fmt.Fprintln(out, text); err != nil {
			return err
		}
	}
	return nil
}
