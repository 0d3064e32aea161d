package proxy

import (
	"strings"
	"testing"
	"time"
)

func TestParseArgs(t *testing.T) {
	t.Run("EN-034 the flags that the original's agent passes", func(t *testing.T) {
		o, err := ParseArgs(strings.Fields("-c etc/envoy-rev.json --drain-time-s 45 --drain-strategy immediate --local-address-ip-version v4 " +
			"--file-flush-interval-msec 1000 --disable-hot-restart --allow-unknown-static-fields -l warning --component-log-level misc:error --concurrency 2"))
		if err != nil {
			t.Fatal(err)
		}
		if o.ConfigPath != "etc/envoy-rev.json" || o.DrainTime != 45*time.Second || !o.DrainImmediate || o.FlushInterval != time.Second ||
			!o.DisableRestart || !o.AllowUnknownStatic || o.LogLevel != "warning" || o.ComponentLogLevel != "misc:error" || o.Concurrency != 2 {
			t.Errorf("%+v", o)
		}
	})
	t.Run("an equals sign joins", func(t *testing.T) {
		if o, err := ParseArgs([]string{"--base-id=7", "--config-yaml=a: b"}); err != nil || o.BaseID != 7 || o.ConfigYAML != "a: b" {
			t.Errorf("%+v %v", o, err)
		}
	})
	t.Run("sockets of the machine around a pod", func(t *testing.T) {
		if o, err := ParseArgs(strings.Fields("--publish-socket /a --dial-socket /b")); err != nil || o.PublishSocket != "/a" || o.DialSocket != "/b" {
			t.Errorf("%+v %v", o, err)
		}
	})
	for args, want := range map[string]string{
		"--foo":                   "PARSE ERROR: Argument: --foo\n             Couldn't find match for argument",
		"--concurrency abc":       "PARSE ERROR: Argument: (--concurrency)\n             Couldn't read argument value from string 'abc'",
		"-c":                      "PARSE ERROR: Argument: -c (--config-path)\n             Missing a value for this argument!",
		"--mode x":                "error: unknown mode 'x'",
		"-l loud":                 "error: invalid log level specified 'loud'",
		"--restart-epoch 1":       "error: --restart-epoch 1: hot restart is not supported, only epoch 0",
		"--drain-strategy slowly": "error: unknown drain-strategy 'slowly'",
	} {
		if _, err := ParseArgs(strings.Fields(args)); err == nil || err.Error() != want {
			t.Errorf("%s: %v", args, err)
		}
	}
	if !strings.Contains(Usage("lateen-proxy"), "-c <string>,  --config-path <string>") {
		t.Error(Usage("lateen-proxy"))
	}
}
