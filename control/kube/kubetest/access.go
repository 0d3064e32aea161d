package kubetest

import (
	"encoding/json"
	"net/http"
)

// Forbid has the API say that a user may not do anything; all others may do everything.
func (a *API) Forbid(user string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forbidden[user] = true
}

// access says what a user may do.
func (a *API) access(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Spec struct {
			User string `json:"user"`
		} `json:"spec"`
	}
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		status(w, http.StatusBadRequest, "BadRequest", err.Error())
		return
	}
	a.mu.Lock()
	forbidden := a.forbidden[asked.Spec.User]
	a.mu.Unlock()
	answer(w, map[string]any{"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "status": map[string]any{"allowed": !forbidden}})
}
