package main

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// asProgram has the test binary be the program.
const asProgram = "LATEEN_OPA_TEST"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestProgram: the arguments of OPA-Envoy's users work, a policy's file is read again when it changes,
// and its end is one in order (MC-041).
func TestProgram(t *testing.T) {
	dir := t.TempDir()
	policies := filepath.Join(dir, "policies")
	if err := os.Mkdir(policies, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(policies, "policy.rego"), "package istio.authz\n\ndefault allow := false\n")
	write(t, filepath.Join(dir, "config.yaml"), "plugins:\n  envoy_ext_authz_grpc:\n    path: istio/authz/allow\n    enable-reflection: true\n")
	socket := filepath.Join(dir, "grpc.sock")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "run", "--server", "--addr=unix://"+filepath.Join(dir, "http.sock"), "--watch", "--log-level=debug",
		"--config-file="+filepath.Join(dir, "config.yaml"), "--set=plugins.envoy_ext_authz_grpc.addr=unix://"+socket, "--set=decision_logs.console=true", "--ignore=.*", policies)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	waitFor(t, lines, "Server initialized.") // and files are watched
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	check := func(want int32) {
		t.Helper()
		answer, err := authv3.NewAuthorizationClient(conn).Check(ctx, &authv3.CheckRequest{})
		if err != nil || answer.GetStatus().GetCode() != want {
			t.Fatalf("%v, %v, want status %d", answer, err, want)
		}
		waitFor(t, lines, "Decision Log")
	}
	check(7)
	write(t, filepath.Join(policies, "policy.rego"), "package istio.authz\n\ndefault allow := true\n")
	waitFor(t, lines, "Processed file watch event.")
	check(0)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// write puts a file in place at once.
func write(t *testing.T, path, text string) {
	t.Helper()
	fresh := filepath.Join(t.TempDir(), "new")
	if err := os.WriteFile(fresh, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(fresh, path); err != nil {
		t.Fatal(err)
	}
}

func waitFor(t *testing.T, lines *bufio.Scanner, text string) {
	t.Helper()
	var said []string
	for lines.Scan() {
		if said = append(said, lines.Text()); strings.Contains(lines.Text(), text) {
			return
		}
	}
	t.Fatalf("never said %q, but\n%s", text, strings.Join(said, "\n"))
}

// TestSaysNothingOfItself: the program looks for no newer version of OPA, unless it is asked to.
func TestSaysNothingOfItself(t *testing.T) {
	run, _, err := command().Find([]string{"run"})
	if err != nil {
		t.Fatal(err)
	}
	if got := run.Flags().Lookup("skip-version-check").Value.String(); got != "true" {
		t.Errorf("skip-version-check is %s", got)
	}
}
