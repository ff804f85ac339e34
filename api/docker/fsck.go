package docker

import (
	"context"
	"net/http"

	"gantry/fsck"
	"gantry/registry"
)

// finding is a fsck.Difference in JSON.
type finding struct {
	Area, Object, Problem string
	Repaired              bool
	Error                 string `json:",omitempty"` // why the repair failed
}

// fsck lists, and with ?repair=1 repairs, every difference between records and reality; with ?layers=1 those between layers and their archives, too. The
// header X-Registry-Config has credentials for what is fetched again. What repairs move aside goes in the same run, if what takes its place is there.
func (s *Server) fsck(w http.ResponseWriter, r *http.Request) error {
	ctx, repair := registry.WithAuth(r.Context(), authsOf(r).of), Bool(r, "repair")
	findings := []finding{}
	differences, err := s.engine.Check(ctx)
	if err == nil && Bool(r, "layers") {
		var more []fsck.Difference
		more, err = s.engine.CheckLayers(ctx)
		differences = append(differences, more...)
	}
	if err != nil {
		return err
	}
	at := map[string]int{}
	for n, d := range differences {
		at[d.Object] = n
		findings = append(findings, s.judge(ctx, d, repair))
	}
	if repair && len(differences) > 0 {
		left, err := s.engine.Check(ctx)
		if err != nil {
			return err
		}
		for _, d := range left {
			if n, known := at[d.Object]; !known {
				findings = append(findings, s.judge(ctx, d, true))
			} else if differences[n].Repair == nil && d.Repair != nil { // what stood in its way is mended
				findings[n] = s.judge(ctx, d, true)
			}
		}
	}
	return WriteJSON(w, http.StatusOK, findings)
}

func (s *Server) judge(ctx context.Context, d fsck.Difference, repair bool) finding {
	f := finding{Area: d.Area, Object: d.Object, Problem: d.Problem}
	if repair && d.Repair != nil {
		if err := d.Repair(ctx); err != nil {
			f.Error = err.Error()
		} else {
			f.Repaired = true
		}
	}
	return f
}
