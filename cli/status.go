package cli

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/lateen-mesh/lateen/local"
)

// newStatus is `lateen status`: parts, ports, generation, and what is wrong. It
// fails when no mesh runs; what is wrong in the mesh is no failure.
func newStatus() *cobra.Command {
	var state, form string
	cmd := &cobra.Command{
		Use: "status", Short: "Show the mesh of a state directory", Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkForm(form); err != nil {
				return err
			}
			dir, err := stateDir(state)
			if err != nil {
				return err
			}
			st, err := local.ReadStatus(cmd.Context(), dir)
			if st.PID == 0 {
				return err
			}
			if form != "" {
				return encode(cmd.OutOrStdout(), form, st)
			}
			printStatus(cmd.OutOrStdout(), st)
			return nil
		},
	}
	cmd.Flags().StringVar(&state, "state", "", "directory of the mesh (default ~/.local/state/lateen/default)")
	cmd.Flags().StringVarP(&form, "output", "o", "", "json or yaml")
	return cmd
}

func printStatus(w io.Writer, st local.Status) {
	t := table(w)
	fmt.Fprintln(t, "PART\tPID\tSTATE\tRESTARTS\tLOG")
	for _, p := range st.Parts {
		pid := "-" // between two lives
		if p.PID != 0 {
			pid = strconv.Itoa(p.PID)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\n", p.Name, pid, p.State, p.Restarts, p.Log)
	}
	_ = t.Flush()
	printPods(w, st)
	if st.Control == nil {
		fmt.Fprintf(w, "\nthe control plane does not answer: %s\n", st.Problem)
		return
	}
	fmt.Fprintln(w)
	printPorts(w, st)
	fmt.Fprintln(w)
	t = table(w)
	fmt.Fprintln(t, "PROXY\tGENERATION\tSYNCED\tREFUSED")
	for _, p := range st.Control.Proxies {
		fmt.Fprintf(t, "%s\t%d of %d\t%s\t%d\n", p.ID, p.Generation, st.Control.Generation, map[bool]string{true: "yes", false: "no"}[p.Synced], len(p.Refused))
	}
	_ = t.Flush()
	if st.Files > 0 || st.Objects > 0 {
		fmt.Fprintf(w, "\n%s applied from %s\n", count(st.Objects, "object"), count(st.Files, "file"))
		printProblems(w, st)
		return
	}
	stale := 0
	for _, f := range st.Control.Files {
		if f.Stale {
			stale++
		}
	}
	fmt.Fprintf(w, "\n%s from %s, %d of them stale\n", count(st.Control.Objects, "object"), count(len(st.Control.Files), "file"), stale)
	printProblems(w, st)
}

// printPods is the table of the pods, in kubectl's columns.
func printPods(w io.Writer, st local.Status) {
	if st.NoPods != "" {
		fmt.Fprintf(w, "\nno pods can run on this machine: %s\n", st.NoPods)
	}
	if len(st.Pods) == 0 {
		return
	}
	fmt.Fprintln(w)
	t := table(w)
	fmt.Fprintln(t, "NAMESPACE\tPOD\tREADY\tSTATUS\tRESTARTS\tAGE\tIP")
	for _, p := range st.Pods {
		fmt.Fprintf(t, "%s\t%s\t%d/%d\t%s\t%d\t%s\t%s\n", p.Namespace, p.Name, p.Up, p.Of, p.Phase, p.Restarts,
			duration.HumanDuration(time.Since(p.Since)), dash(p.Address))
	}
	_ = t.Flush()
}

// printPorts is the table of the gateway's ports.
func printPorts(w io.Writer, st local.Status) {
	if st.Control == nil {
		return
	}
	t := table(w)
	fmt.Fprintln(t, "GATEWAY PORT\tLISTENS ON\tPROTOCOL\tHOSTS\tOBJECT")
	for _, p := range st.Control.Proxies {
		for _, l := range p.Listeners {
			host := int(l.HostPort)
			if st.Published != nil {
				host = st.Published[int(l.Port)]
			}
			at := net.JoinHostPort(l.Address, strconv.Itoa(host))
			if local.Refused(p, l.Port) {
				at = "refused"
			}
			fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\n", l.Port, at, dash(l.Protocol), dash(strings.Join(l.Hosts, ",")), dash(strings.Join(l.Objects, ",")))
		}
	}
	_ = t.Flush()
}

// printProblems lists what is wrong.
func printProblems(w io.Writer, st local.Status) {
	for _, p := range problems(st) {
		fmt.Fprintln(w, p)
	}
}

// problems are what is wrong in files, in the mesh and at proxies, each with its hint.
func problems(st local.Status) []string {
	var list []string
	for _, p := range st.Problems {
		text := p.Severity.String() + ": " + p.Error()
		if p.Hint != "" {
			text += "\nhint: " + p.Hint
		}
		list = append(list, text)
	}
	for _, p := range st.Pods {
		if p.Problem != "" {
			list = append(list, fmt.Sprintf("error: Pod %s/%s: %s", p.Namespace, p.Name, p.Problem))
		}
	}
	if st.Control == nil {
		return list
	}
	for _, f := range st.Control.Files {
		for _, p := range f.Problems {
			list = append(list, p.String())
		}
		if f.Stale {
			list = append(list, fmt.Sprintf("warning: %s: stale: objects of it are in force as they were before", f.Path))
		}
	}
	for _, p := range st.Control.Problems {
		list = append(list, p.String())
	}
	for _, p := range st.Control.Proxies {
		for _, r := range p.Refused {
			text := fmt.Sprintf("error: %s refuses %s %s: %s", p.ID, r.Type, r.Resource, r.Error)
			if strings.Contains(strings.ToLower(r.Error), "address already in use") {
				text += "\nhint: another program has the port: lateen up --publish PORT=HOSTPORT"
			}
			list = append(list, text)
		}
	}
	return list
}

func table(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 0, 3, ' ', 0) }

// count is "1 file", "2 files".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func dash(s string) string { return cmp.Or(s, "-") }
