package control

import (
	"encoding/json"
	"os"
	"runtime"

	"github.com/lateen-mesh/lateen/wellknown"
)

// identifier is what responses say of this control plane: JSON under the original's keys,
// which istioctl reads, and under our own (wellknown.DrainIdentifier) what no other knows.
func identifier() string {
	name := os.Getenv("POD_NAME")
	if name == "" {
		name, _ = os.Hostname()
	}
	text, _ := json.Marshal(map[string]any{ // of strings alone: cannot fail
		"Component": "istiod",
		"ID":        name,
		"Info": map[string]string{
			"version": wellknown.Version(), "revision": "unknown", "golang_version": runtime.Version(), "status": "Clean", "tag": wellknown.Version(),
		},
		"Lateen": map[string]string{"drain": wellknown.DrainType},
	})
	return string(text)
}
