package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lateen-mesh/lateen/local"
)

// newLogs is `lateen logs`: of a part of the mesh by its name as `lateen status` shows
// it, else kubectl's, of a pod.
func newLogs(s Streams) *cobra.Command {
	return &cobra.Command{
		Use: "logs [PART | POD]", Short: "Print the log of a part of the mesh, or of a pod", GroupID: kubectlGroup,
		Long: `Print the log of a part of the mesh (apiserver, node, istiod, gateway, up), or of a pod.

Without a name: the parts and where their logs are. For a part: -f follows, --tail N
begins at the last lines. For a pod the flags are those of kubectl logs.`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			state, rest := takeFlag(args, "--state")
			if wantsHelp(rest) {
				return cmd.Help()
			}
			dir, err := stateDir(state)
			if err != nil {
				return err
			}
			if len(rest) == 0 {
				return listLogs(s.Out, dir)
			}
			name := firstName(rest)
			if pod := partPod(dir, name); pod != nil {
				return kubectl(s, slices.Concat([]string{"logs"}, pod, without(args, name)))
			}
			path := filepath.Join(dir, "logs", name+".log")
			if _, err := os.Stat(path); err != nil || name == "" || name != filepath.Base(name) {
				return kubectl(s, append([]string{"logs"}, args...))
			}
			return partLog(cmd.Context(), s.Out, path, rest)
		},
	}
}

// podParts are the parts that are pods where pods run.
var podParts = map[string][]string{
	"istiod":  {"-n", "istio-system", "deployment/istiod"},
	"gateway": {"-n", "istio-system", "deployment/istio-ingressgateway"},
}

// partPod is how kubectl names a part of a running mesh that is a pod, nil for others.
func partPod(dir, name string) []string {
	st, err := local.ReadRecord(dir)
	if err != nil || st.PID == 0 || st.Kubeconfig == "" || st.NoPods != "" {
		return nil
	}
	return podParts[name]
}

// without leaves out the first argument that is a word.
func without(args []string, word string) []string {
	at := slices.Index(args, word)
	return slices.Concat(args[:at], args[at+1:])
}

// partFlags are the flags that the log of a part has.
func partFlags() (set *pflag.FlagSet, follow *bool, tail *int) {
	set = pflag.NewFlagSet("logs", pflag.ContinueOnError)
	return set, set.BoolP("follow", "f", false, ""), set.Int("tail", -1, "")
}

// firstName is the first argument that is neither a flag nor the value of one.
func firstName(args []string) string {
	set, _, _ := partFlags()
	set.ParseErrorsAllowlist.UnknownFlags = true
	_ = set.Parse(args) // what is wrong is for whom the name says
	return set.Arg(0)
}

// listLogs shows which logs there are, also those of a mesh that has ended.
func listLogs(w io.Writer, dir string) error {
	logs, err := filepath.Glob(filepath.Join(dir, "logs", "*.log"))
	if err != nil {
		return err
	}
	if len(logs) == 0 {
		return noMesh(dir)
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "PART\tLOG")
	for _, path := range logs {
		if name := strings.TrimSuffix(filepath.Base(path), ".log"); partPod(dir, name) == nil { // else it is of an earlier mesh
			fmt.Fprintf(t, "%s\t%s\n", name, path)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(podParts)) {
		if pod := partPod(dir, name); pod != nil {
			fmt.Fprintf(t, "%s\tlateen logs %s\n", name, strings.Join(pod, " "))
		}
	}
	return t.Flush()
}

// partLog prints a log file, from its last lines on where --tail says so.
func partLog(ctx context.Context, w io.Writer, path string, args []string) error {
	set, follow, tail := partFlags()
	if err := set.Parse(args); err != nil {
		return wrongUsage(err, "for a part of the mesh: lateen logs PART [-f] [--tail N]")
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { file.Close() }()
	if *tail >= 0 {
		if err := seekLines(file, *tail); err != nil {
			return err
		}
	}
	for {
		if _, err := io.Copy(w, file); err != nil || !*follow {
			return err
		}
		wait := time.NewTimer(200 * time.Millisecond)
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil
		case <-wait.C:
		}
		next, err := rotated(file, path)
		if err != nil {
			return err
		}
		if next != nil {
			_, _ = io.Copy(w, file) // what was written before the change
			file.Close()
			file = next
		}
	}
}

// rotated opens the file at path where that is another one now, or was begun anew.
func rotated(file *os.File, path string) (*os.File, error) {
	old, err := file.Stat()
	if err != nil {
		return nil, err
	}
	at, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, err
	}
	now, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && os.SameFile(old, now) && now.Size() >= at {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return os.Open(path)
}

// seekLines moves to where the last n lines begin. Logs of parts are bounded in size.
func seekLines(file *os.File, n int) error {
	var starts []int64
	var at int64
	fresh := true // at is the begin of a line
	for lines := bufio.NewReader(file); ; {
		part, err := lines.ReadSlice('\n')
		if fresh && len(part) > 0 {
			starts = append(starts, at)
		}
		at += int64(len(part))
		if len(starts) > n {
			starts = starts[1:]
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		fresh = err == nil
	}
	if len(starts) > 0 {
		at = starts[0]
	}
	_, err := file.Seek(at, io.SeekStart)
	return err
}
