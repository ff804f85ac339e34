package docker

// containerRoutes registers the endpoints of containers and execs.
func (s *Server) containerRoutes(add func(method, pattern string, h Handler)) {}
