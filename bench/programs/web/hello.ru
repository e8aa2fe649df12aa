# What Unicorn and Puma serve: the same as hello.py.
run lambda { |env|
  body = env['PATH_INFO'] == '/pid' ? "#{Process.pid}\n" : "hello\n"
  [200, { 'content-type' => 'text/plain', 'content-length' => body.bytesize.to_s }, [body]]
}
