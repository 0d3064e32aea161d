package main

import (
	"context"
	"testing"
)

func TestExitCodes(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // whatever starts ends at once
	for _, tt := range []struct {
		args []string
		want int
	}{
		{nil, 0},
		{[]string{"--help"}, 0},
		{[]string{"sleep", "infinity"}, 0},
		{[]string{"httpbin", "--listen", "127.0.0.1:0"}, 0},
		{[]string{"tcp-echo", "0,0", "hello"}, 0},
		{[]string{"httpbin"}, 1},
		{[]string{"httpbin", "--port", "80"}, 2},
		{[]string{"http"}, 2},
		{[]string{"sleep", "well"}, 2},
	} {
		if got := run(ctx, tt.args); got != tt.want {
			t.Errorf("lateen-sample %q exits with %d, want %d", tt.args, got, tt.want)
		}
	}
}
