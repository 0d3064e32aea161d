package container

import (
	"testing"
)

func TestRights(t *testing.T) {
	if outside(t) {
		return
	}
	r := newRuntime(t)
	as := func(c Config, uid, gid int) Config {
		c.UID, c.GID = uid, gid
		return c
	}
	proxy := func(c Config) Config {
		c.NetAdmin = true
		return c
	}
	for _, c := range []struct {
		name   string
		config Config
		want   string
	}{
		{"root in the container", script("id -u; id -g"), "0\n0"},
		{"runAsUser", as(script("id -u; id -g; ls -ldn /proc/self/ | cut -d' ' -f3,4"), 1000, 2000), "1000\n2000\n1000 2000"},
		{"runAsUser has no rights", as(script("grep CapEff /proc/self/status"), 1000, 1000), "CapEff:\t0000000000000000"},
		{"runAsUser writes in /tmp", as(script("echo x > /tmp/x && cat /tmp/x"), 1000, 1000), "x"},
		{"runAsUser opens its output again", as(script("echo x > /dev/stdout"), 1000, 1000), "x"},
		{"proxies with a user of their own open their output again", as(proxy(script("echo x > /dev/stdout")), 1337, 1337), "x"},
		{"ports below 1024", appConfig("listen", "80"), "<nil>"},
		{"ports below 1024 for runAsUser", as(appConfig("listen", "80"), 1000, 1000), "<nil>"},
		{"applications cannot mark packets", appConfig("mark", "1337"), "operation not permitted"},
		{"runAsUser cannot mark packets", as(appConfig("mark", "1337"), 1000, 1000), "operation not permitted"},
		{"proxies can", proxy(appConfig("mark", "1337")), "<nil>"},
		{"proxies with a user of their own can", as(proxy(appConfig("mark", "1337")), 1337, 1337), "<nil>"},
		{"nobody can mount", appConfig("remount"), "operation not permitted"},
		{"nor can proxies", proxy(appConfig("remount")), "operation not permitted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, exit := outputOf(t, r, newNetwork(t), c.config); got != c.want || exit.Code != 0 {
				t.Errorf("%q, %+v, want %q", got, exit, c.want)
			}
		})
	}
}
