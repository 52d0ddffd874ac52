import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintWriter;
import java.net.Socket;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.retry.RetryNTimes;

/**
 * Apache Curator's InterProcessMutex at the other end of a connection: `acquire PATH MILLISECONDS` answers `true` or
 * `false`, `release PATH` answers `released`. Errors are answered with their text.
 */
public class CuratorMutex {
  public static void main(String[] arguments) throws Exception {
    String servers = arguments[0];
    int port = Integer.parseInt(arguments[1]);
    CuratorFramework client = CuratorFrameworkFactory.newClient(servers, 4_000, 4_000, new RetryNTimes(5, 100));
    client.start();
    client.blockUntilConnected();
    Map<String, InterProcessMutex> mutexes = new HashMap<>();
    try (Socket socket = new Socket("127.0.0.1", port)) {
      BufferedReader commands = new BufferedReader(new InputStreamReader(socket.getInputStream()));
      PrintWriter answers = new PrintWriter(socket.getOutputStream(), true);
      answers.println("ready");
      for (String line = commands.readLine(); line != null; line = commands.readLine()) {
        String[] words = line.split(" ");
        InterProcessMutex mutex = mutexes.computeIfAbsent(words[1], path -> new InterProcessMutex(client, path));
        try {
          if (words[0].equals("acquire")) {
            answers.println(mutex.acquire(Long.parseLong(words[2]), TimeUnit.MILLISECONDS));
          } else {
            mutex.release();
            answers.println("released");
          }
        } catch (Exception error) {
          answers.println(error);
        }
      }
    }
    client.close();
  }
}
