package main

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestQuantile(t *testing.T) {
	tests := []struct {
		values []float64
		q      float64
		want   float64
	}{
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{4, 1, 2, 3}, 0.5, 2.5},
		{[]float64{1, 2, 3, 4, 5}, 0.25, 2},
		{[]float64{7}, 0.25, 7},
	}
	for _, tt := range tests {
		if got := quantile(tt.values, tt.q); got != tt.want {
			t.Errorf("quantile(%v, %v) = %v, want %v", tt.values, tt.q, got, tt.want)
		}
	}
}

func TestEveryContenderHasTheWholeRoutingTable(t *testing.T) {
	bootstrap, err := json.Marshal(config{base: 1, dir: "d", log: "log", services: 1}.bootstrap())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"envoy": string(bootstrap), "nginx": nginxConf("d"), "haproxy": haproxyConf()} {
		for _, want := range []string{"svc0.default.svc.cluster.local", "svc49.default.svc.cluster.local", "/svc5/"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: configuration lacks %s", name, want)
			}
		}
	}
}
