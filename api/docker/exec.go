package docker

import (
	"context"
	"net/http"

	"gantry/container"
	"gantry/errdefs"

	api "github.com/moby/moby/api/types/container"
)

func (s *Server) execRoutes(add func(method, pattern string, h Handler)) {
	add("POST", "/containers/{name}/exec", s.execCreate)
	add("POST", "/exec/{id}/start", s.execStart)
	add("POST", "/exec/{id}/resize", s.execResize)
	add("GET", "/exec/{id}/json", s.execInspect)
}

func (s *Server) execCreate(w http.ResponseWriter, r *http.Request) error {
	var req api.ExecCreateRequest
	if err := ReadJSON(w, r, &req); err != nil {
		return err
	}
	if _, err := detachKeys(req.DetachKeys); err != nil {
		return err
	}
	id, err := s.engine.Containers.CreateExec(r.PathValue("name"), req)
	if err != nil {
		return err
	}
	return WriteJSON(w, http.StatusCreated, api.ExecCreateResponse{ID: id})
}

func (s *Server) execStart(w http.ResponseWriter, r *http.Request) error {
	var req api.ExecStartRequest
	if err := ReadJSON(w, r, &req); err != nil {
		return err
	}
	id := r.PathValue("id")
	e, err := s.engine.Containers.GetExec(id)
	if err != nil {
		return err
	}
	if err := s.engine.Containers.CheckExecStart(id); err != nil {
		return err
	}
	o := container.StartOptions{Detach: req.Detach, Tty: e.Request.Tty}
	size := req.ConsoleSize
	if size == nil {
		size = e.Request.ConsoleSize
	}
	if size != nil {
		o.Rows, o.Cols = uint16(size[0]), uint16(size[1])
	}
	if o.DetachKeys, err = detachKeys(e.Request.DetachKeys); err != nil {
		return err
	}
	ctx := context.WithoutCancel(r.Context())
	if req.Detach {
		if err := s.engine.Containers.StartExec(ctx, id, o); err != nil {
			return err
		}
		w.WriteHeader(http.StatusOK)
		return nil
	}
	conn, prefix, _, err := Hijack(w, r, !e.Request.Tty)
	if err != nil {
		return err
	}
	if o.Conn, err = connFile(conn); err != nil {
		return err
	}
	o.Prefix = prefix
	// The answer is on its way already: a failure is told on the stream, and by the exit code that the client asks for.
	told, err := dup(o.Conn)
	if err != nil {
		return err
	}
	defer func() { _ = told.Close() }() // the supervisor's own descriptor lives on
	if err := s.engine.Containers.StartExec(ctx, id, o); err != nil {
		text := err.Error() + "\r\n"
		var header [8]byte
		if !e.Request.Tty {
			text = string(frame(&header, 2, len(text))) + text
		}
		_, _ = told.WriteString(text) // a client that went away does not want it
		return err
	}
	return nil
}

func (s *Server) execResize(w http.ResponseWriter, r *http.Request) error {
	rows, cols, err := terminalSize(r)
	if err != nil {
		return err
	}
	return s.engine.Containers.ResizeExec(r.Context(), r.PathValue("id"), rows, cols)
}

func (s *Server) execInspect(w http.ResponseWriter, r *http.Request) error {
	e, err := s.engine.Containers.GetExec(r.PathValue("id"))
	if err != nil {
		return err
	}
	st, req := s.engine.Containers.ExecState(r.Context(), e), &e.Request
	if len(req.Cmd) == 0 { // a session that an earlier daemon started: its request is not kept
		return errdefs.New(errdefs.NotFound, "No such exec instance: %s", e.ID)
	}
	return WriteJSON(w, http.StatusOK, api.ExecInspectResponse{ID: e.ID, Running: st.Running, ExitCode: st.ExitCode, OpenStdin: req.AttachStdin, OpenStdout: req.AttachStdout,
		OpenStderr: req.AttachStderr, CanRemove: !st.Running && st.ExitCode != nil, ContainerID: e.Container.ID(), DetachKeys: []byte(req.DetachKeys), Pid: st.Pid,
		ProcessConfig: &api.ExecProcessConfig{Tty: req.Tty, Entrypoint: req.Cmd[0], Arguments: notNil(req.Cmd[1:]), Privileged: &req.Privileged, User: req.User}})
}
