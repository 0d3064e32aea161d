package sleep

import (
	"context"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want time.Duration
		bad  bool
	}{
		{[]string{"3650d"}, 3650 * 24 * time.Hour, false},
		{[]string{"infinity"}, Forever, false},
		{[]string{"inf"}, Forever, false},
		{[]string{"1"}, time.Second, false},
		{[]string{"0.5"}, 500 * time.Millisecond, false},
		{[]string{"1m", "2h", "3s"}, 2*time.Hour + time.Minute + 3*time.Second, false},
		{[]string{"1e30d"}, Forever, false},
		{nil, 0, true},
		{[]string{""}, 0, true},
		{[]string{"d"}, 0, true},
		{[]string{"-1"}, 0, true},
		{[]string{"nan"}, 0, true},
		{[]string{"1w"}, 0, true},
	} {
		got, err := Parse(tt.args)
		if got != tt.want || (err != nil) != tt.bad {
			t.Errorf("Parse(%q) = %v, %v; want %v, error %v", tt.args, got, err, tt.want, tt.bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("1.5h")
	f.Add("infinity")
	f.Fuzz(func(t *testing.T, arg string) {
		if d, err := Parse([]string{arg, arg}); err == nil && d < 0 {
			t.Errorf("Parse(%q twice) = %v", arg, d)
		}
	})
}

func TestForEndsWhenTheTimeIsOver(t *testing.T) {
	begin := time.Now()
	For(t.Context(), time.Millisecond)
	if got := time.Since(begin); got < time.Millisecond {
		t.Errorf("slept %v only", got)
	}
}

func TestForEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	For(ctx, Forever)
}

// A child that nobody waits for does not stay as a zombie.
func TestForCollectsChildren(t *testing.T) {
	cmd := exec.Command("true")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { For(ctx, Forever); close(done) }()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	deadline, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	for syscall.Kill(cmd.Process.Pid, 0) == nil {
		if deadline.Err() != nil {
			t.Fatalf("process %d is still there", cmd.Process.Pid)
		}
		// The signal is on its way, or was sent before For asked for it: another child brings another one.
		_ = exec.Command("true").Run()
	}
	cancel()
	<-done
}
