package test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/local/namespace"
)

// tourCommand is one command of the README's tour with what it must print.
type tourCommand struct{ line, want string }

// TestReadmeTour runs the tour of the README, command by command, and compares what
// is printed; "<…>" stands for anything.
func TestReadmeTour(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	bin := engineDir(t)
	readme := string(text)
	var refusal *namespace.Refusal
	if _, err := namespace.Probe(t.Context(), filepath.Join(bin, "lateen-engine")); errors.As(err, &refusal) {
		t.Logf("the part about pods is left out: %v (%s)", err, refusal.Hint)
		readme, _, _ = strings.Cut(readme, "### Pods")
	}
	commands := tour(readme)
	if len(commands) == 0 {
		t.Fatal("the README has no console blocks")
	}
	state := openTemp(t)
	path := bin + ":" + os.Getenv("PATH")
	t.Cleanup(func() { // a tour that fails half-way leaves no mesh behind
		for _, dir := range []string{state, filepath.Join(state, "second"), filepath.Join(state, "pods"), filepath.Join(state, "shop")} {
			_ = shell(context.Background(), path, "lateen down --state "+dir).Run()
		}
	})
	for _, c := range commands {
		line := strings.ReplaceAll(c.line, "/tmp/lateen-tour", state)
		want := strings.ReplaceAll(c.want, "/tmp/lateen-tour", state)
		if background, ok := strings.CutSuffix(line, " &"); ok {
			runInBackground(t, path, background)
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		cmd := shell(ctx, path, line)
		out, err := cmd.CombinedOutput()
		cancel()
		got := strings.ReplaceAll(string(out), "\r\n", "\n")
		if !matches(want, got) {
			t.Fatalf("$ %s\nprinted (%v):\n%s\nthe README says:\n%s", line, err, got, want)
		}
	}
}

// tour reads the console blocks.
func tour(readme string) (commands []tourCommand) {
	inside := false
	for line := range strings.SplitSeq(readme, "\n") {
		switch {
		case line == "```console":
			inside = true
		case line == "```":
			inside = false
		case inside && strings.HasPrefix(line, "$ "):
			commands = append(commands, tourCommand{line: strings.TrimPrefix(line, "$ ")})
		case inside:
			commands[len(commands)-1].want += line + "\n"
		}
	}
	return commands
}

func shell(ctx context.Context, path, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", "-c", line)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "PATH="+path)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func runInBackground(t *testing.T, path, line string) {
	t.Helper()
	cmd := shell(context.Background(), path, "exec "+line)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	first := make([]byte, 256)
	n, _ := stderr.Read(first) // what it says once it listens, or why it does not
	if !strings.Contains(string(first[:n]), "listening on") {
		t.Fatalf("$ %s &\nsaid: %s", line, first[:n])
	}
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
}

// matches compares by words, so that the width of columns is free.
func matches(want, got string) bool {
	pattern := regexp.QuoteMeta(strings.Join(strings.Fields(want), " "))
	pattern = strings.ReplaceAll(pattern, regexp.QuoteMeta("<…>"), ".*")
	return regexp.MustCompile("^" + pattern + "$").MatchString(strings.Join(strings.Fields(got), " "))
}
