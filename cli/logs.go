package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lateen-mesh/lateen/local"
)

// newLogs is `lateen logs`: of a part of the mesh by its name as `lateen status` shows
// it, else kubectl's, of a pod.
func newLogs(s Streams) *cobra.Command {
	return &cobra.Command{
		Use: "logs [PART | POD]", Short: "Print the log of a part of the mesh, or of a pod", GroupID: kubectlGroup,
		Long: `Print the log of a part of the mesh (apiserver, istiod, node, gateway, up), or of a pod.

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
			name := firstName(rest)
			if name == "" && len(rest) == 0 {
				return listLogs(s.Out, dir)
			}
			path := filepath.Join(dir, "logs", filepath.Base(name)+".log")
			if _, err := os.Stat(path); err != nil || strings.ContainsAny(name, "/") || name == "" {
				return kubectl(s, append([]string{"logs"}, args...))
			}
			return partLog(cmd.Context(), s.Out, path, rest)
		},
	}
}

func firstName(args []string) string {
	for _, a := range args {
		if !strings.HasPrefix(a, "-") {
			return a
		}
	}
	return ""
}

func listLogs(w io.Writer, dir string) error {
	st, err := local.ReadRecord(dir)
	if err != nil {
		return err
	}
	t := table(w)
	fmt.Fprintln(t, "PART\tLOG")
	for _, p := range st.Parts {
		fmt.Fprintf(t, "%s\t%s\n", p.Name, p.Log)
	}
	return t.Flush()
}

// partLog prints a log file, from its last lines on where --tail says so.
func partLog(ctx context.Context, w io.Writer, path string, args []string) error {
	var follow bool
	tail := -1
	set := (&cobra.Command{}).Flags()
	set.BoolVarP(&follow, "follow", "f", false, "")
	set.IntVar(&tail, "tail", -1, "")
	if err := set.Parse(args); err != nil {
		return &usageError{err, "for a part of the mesh: lateen logs PART [-f] [--tail N]"}
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { file.Close() }()
	if tail >= 0 {
		if err := seekLines(file, tail); err != nil {
			return err
		}
	}
	for {
		if _, err := io.Copy(w, file); err != nil || !follow {
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

// rotated opens the file at path where that is another one now.
func rotated(file *os.File, path string) (*os.File, error) {
	old, err := file.Stat()
	if err != nil {
		return nil, err
	}
	now, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && os.SameFile(old, now) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return os.Open(path)
}

// seekLines moves to where the last n lines begin. Logs of parts are bounded in size.
func seekLines(file *os.File, n int) error {
	starts := make([]int64, 0, n+1)
	var at int64
	for lines := bufio.NewReader(file); ; {
		line, err := lines.ReadSlice('\n')
		if len(line) > 0 && (len(starts) == 0 || starts[len(starts)-1] != at) {
			starts = append(starts, at)
		}
		at += int64(len(line))
		if len(starts) > n {
			starts = starts[1:]
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
	if len(starts) > 0 {
		at = starts[0]
	}
	_, err := file.Seek(at, io.SeekStart)
	return err
}
