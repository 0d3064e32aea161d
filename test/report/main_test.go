package main

import (
	"fmt"
	"strings"
	"testing"
)

// line is one event of `go test -json`.
func line(action, test, output string) string {
	return fmt.Sprintf("{\"Action\":%q,\"Package\":\"p\",\"Test\":%q,\"Output\":%q}\n", action, test, output)
}

func TestLastLines(t *testing.T) {
	diff := line("run", "TestDiff/tcp/a", "") + line("pass", "TestDiff/tcp/a", "") +
		line("output", "TestDiff/tcp/b", "UNEXPLAINED: x\n") + line("fail", "TestDiff/tcp/b", "") +
		line("pass", "TestDiff/tcp/admin_/stats", "")
	replay := line("pass", "TestReplay/scenario_31", "") + line("fail", "TestReplay/scenario_32", "") + line("pass", "TestReplay/scenario_31/step", "")
	tests := []struct {
		name     string
		args     []string
		in, want string
		fails    bool
	}{
		{"a difference that nobody explains fails", []string{"diff"}, diff, "diff: 2 cases, 1 agree, 0 listed, 1 unexplained", true},
		{"no case at all fails", []string{"diff"}, "", "diff: 0 cases, 0 agree, 0 listed, 0 unexplained", true},
		{"a scenario counts when it passed", []string{"replay", "standalone"}, replay, "replay standalone: 1/56", false},
		{"and when it passed everywhere", []string{"replay", "standalone"},
			replay + line("fail", "TestReplayPods/scenario_31", "") + line("pass", "TestReplayPods/scenario_04", ""), "replay standalone: 1/56", false},
		{"and each time", []string{"replay", "standalone"},
			line("pass", "TestReplayPods/scenario_19", "") + line("fail", "TestReplayPods/scenario_19#01", "") + line("pass", "TestReplayPods/scenario_20#04", ""), "replay standalone: 1/56", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			err := run(tt.args, strings.NewReader(tt.in), &out)
			if (err != nil) != tt.fails {
				t.Errorf("error is %v, want one: %v", err, tt.fails)
			}
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if last := lines[len(lines)-1]; last != tt.want {
				t.Errorf("last line is %q, want %q", last, tt.want)
			}
		})
	}
}

func TestOpenCommandsAreNamed(t *testing.T) {
	in := line("run", "TestReplayPods/scenario_06", "") + line("run", "TestReplayPods/scenario_06/MC-001_x", "") +
		line("output", "TestReplayPods/scenario_06/MC-001_x", "    run.go:1: OPEN: istioctl dashboard grafana: not built yet\n") +
		line("pass", "TestReplayPods/scenario_06/MC-001_x", "") + line("pass", "TestReplayPods/scenario_06", "")
	var out strings.Builder
	if err := run([]string{"replay", "standalone"}, strings.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	want := "scenario 06 pass\nscenario 06 open: istioctl dashboard grafana: not built yet\nreplay standalone: 1/56\n"
	if out.String() != want {
		t.Errorf("the report is %q, want %q", out.String(), want)
	}
}
